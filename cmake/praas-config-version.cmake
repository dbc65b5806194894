# The version is that of the npm package. While it is 0.x, releases of one minor version go together; after that, those
# of one major version.
file(READ "${CMAKE_CURRENT_LIST_DIR}/../package.json" _praas_package)
string(JSON PACKAGE_VERSION GET "${_praas_package}" version)
string(REGEX REPLACE "[-+].*" "" _praas_release "${PACKAGE_VERSION}")
string(REPLACE "." ";" _praas_parts "${_praas_release}")
list(GET _praas_parts 0 _praas_major)
list(GET _praas_parts 1 _praas_minor)

set(PACKAGE_VERSION_COMPATIBLE FALSE)
if(NOT PACKAGE_FIND_VERSION VERSION_GREATER _praas_release AND PACKAGE_FIND_VERSION_MAJOR EQUAL _praas_major)
  if(_praas_major GREATER 0 OR PACKAGE_FIND_VERSION_COUNT EQUAL 1 OR PACKAGE_FIND_VERSION_MINOR EQUAL _praas_minor)
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
  endif()
endif()
if(PACKAGE_FIND_VERSION VERSION_EQUAL _praas_release)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()

unset(_praas_package)
unset(_praas_release)
unset(_praas_parts)
unset(_praas_major)
unset(_praas_minor)
