# What find_package(Slicer) finds in place of a built Slicer, where Slicer's own CMake files are at hand: theirs do the
# work. Only what Slicer takes from a build, and from CTK and VTK, is replaced.
#
#   cmake -S . -B build -D Slicer_DIR=slicer_extension/Testing/SlicerSources -D SLICER_SOURCES=FOLDER
set(Slicer_FOUND TRUE)
set(Slicer_CMAKE_DIR "${SLICER_SOURCES}/CMake")
file(COPY "${SLICER_SOURCES}/Extensions" DESTINATION "${CMAKE_BINARY_DIR}/sources") # it looks for templates beside itself
set(Slicer_EXTENSIONS_CMAKE_DIR "${CMAKE_BINARY_DIR}/sources/Extensions/CMake")
file(WRITE "${CMAKE_BINARY_DIR}/sources/Utilities/Templates/Extensions/extension_description.s4ext.in" [[
scm_url @scm_url@
depends @MY_EXTENSION_DEPENDS@
homepage @MY_EXTENSION_HOMEPAGE@
contributors @MY_EXTENSION_CONTRIBUTORS@
description @MY_EXTENSION_DESCRIPTION@
iconurl @MY_EXTENSION_ICONURL@
screenshoturls @MY_EXTENSION_SCREENSHOTURLS@
]])
set(others "${CMAKE_BINARY_DIR}/of_ctk_and_vtk")
list(PREPEND CMAKE_MODULE_PATH "${Slicer_CMAKE_DIR}" "${Slicer_EXTENSIONS_CMAKE_DIR}" "${others}")

configure_file("${Slicer_CMAKE_DIR}/UseSlicer.cmake.in" "${CMAKE_BINARY_DIR}/UseSlicer.cmake" COPYONLY)
set(Slicer_USE_FILE "${CMAKE_BINARY_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${Slicer_CMAKE_DIR}/SlicerExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${Slicer_CMAKE_DIR}/SlicerExtensionCPack.cmake")

# Of a build.
set(Slicer_USE_PYTHONQT ON)
set(Slicer_REVISION "1")
set(Slicer_WC_ROOT "https://github.com/Slicer/Slicer")
set(Slicer_OS "linux")
set(Slicer_ARCHITECTURE "amd64")
set(Slicer_MAIN_PROJECT_APPLICATION_NAME "Slicer")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer/qt-scripted-modules")
set(Slicer_SHARE_DIR "share/Slicer")
set(Slicer_SKIP_EXTERNAL_PROJECTS_USEFILE TRUE)
set(Slicer_SKIP_EXTERNAL_DATA TRUE)
set(Slicer_SKIP_SET_CMAKE_C_CXX_FLAGS TRUE)

# Of CTK and VTK: what an extension of Python files has no part in is empty.
foreach(file IN ITEMS ctkFunctionAddExecutableUtf8.cmake ctkMacroCompilePythonScript.cmake ctkMacroWrapPythonQt.cmake
    vtkMacroKitPythonWrap.cmake SlicerExecutionModel.cmake qSlicerModuleGenericTest.py.in)
  file(WRITE "${others}/${file}" "")
endforeach()
set(SlicerExecutionModel_USE_FILE "${others}/SlicerExecutionModel.cmake")
set(Slicer_PYTHON_MODULE_TEST_TEMPLATES_DIR "${others}")
macro(find_package name)
  if(NOT "${name}" MATCHES "^(PythonQt|SlicerExecutionModel|CTKAppLauncher|VTK)$")
    _find_package(${ARGV})
  endif()
endmacro()
function(ctkAppLauncherConfigureForExecutable)
endfunction()
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(SCRIPT "NO_INSTALL_SUBDIR" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  install(DIRECTORY "${SCRIPT_DESTINATION_DIR}/" DESTINATION "${SCRIPT_INSTALL_DIR}") # CTK copies all files here before
  foreach(file IN LISTS SCRIPT_SCRIPTS SCRIPT_RESOURCES)
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "${SCRIPT_INSTALL_DIR}/${folder}")
  endforeach()
endfunction()
