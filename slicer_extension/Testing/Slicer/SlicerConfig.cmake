# What find_package(Slicer) finds in the packaging test, in place of a built Slicer: enough of its macros to configure
# and install an extension of Python files.
#
#   cmake -S . -B build -D Slicer_DIR=slicer_extension/Testing/Slicer
#   cmake --install build --prefix installed
set(Slicer_FOUND TRUE)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.12/qt-scripted-modules")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/ExtensionCPack.cmake")
