# Slicer writes SuperResolutionConfig.cmake here, for extensions that depend on this one.
