# Slicer packs the extension here, with what the Extensions Manager shows.
