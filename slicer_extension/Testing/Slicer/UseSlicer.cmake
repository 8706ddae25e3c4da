include(CTest)

# As Slicer's slicerMacroBuildScriptedModule: every script and resource is installed where it lies below the module, and
# with them whatever lies in the module's folder of the build.
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule does not know ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT "${MODULE_NAME}.py" IN_LIST MODULE_SCRIPTS)
    message(FATAL_ERROR "${MODULE_NAME}.py, after which the module is named, is not among SCRIPTS")
  endif()

  install(DIRECTORY "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/"
    DESTINATION "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${folder}")
  endforeach()
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${TEST_SCRIPT}")
    message(FATAL_ERROR "${TEST_SCRIPT} is to be tested and does not exist")
  endif()
endfunction()
