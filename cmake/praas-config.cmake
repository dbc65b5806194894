# Functions for praas processes in C and C++.
#
#   find_package(praas REQUIRED)
#   praas_add_functions(grid grid.c smooth.cc)        # builds libgrid.so
#
# The package is found with -Dpraas_DIR=…/node_modules/praas/cmake, or with …/node_modules/praas in CMAKE_PREFIX_PATH.
#
# praas::praas  carries the include directory. There is nothing to link with: praas-worker, which loads the libraries,
#               defines what praas.h declares. Libraries must therefore not be linked with -Wl,-z,defs
#               (--no-undefined).

if(NOT TARGET praas::praas)
  get_filename_component(_praas_include "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
  if(NOT EXISTS "${_praas_include}/praas/praas.h")
    set(praas_FOUND FALSE)
    set(praas_NOT_FOUND_MESSAGE "there is no ${_praas_include}/praas/praas.h; reinstall the npm package praas")
    return()
  endif()
  add_library(praas::praas INTERFACE IMPORTED)
  set_target_properties(praas::praas PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_praas_include}")
  unset(_praas_include)
endif()

# praas_add_functions(NAME [EXPORT_ALL] SOURCE…)
#
# A library of functions, libNAME.so. Only functions of PRAAS_FUNCTION and PRAAS_CPP_FUNCTION, and what is marked
# PRAAS_EXPORT, are visible in it. EXPORT_ALL makes every function visible that is neither static nor inline: for
# functions of rFaaS and PraaS, which are not marked.
function(praas_add_functions name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "EXPORT_ALL" "" "")
  if(NOT arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "praas_add_functions(${name}): no sources")
  endif()
  add_library(${name} MODULE ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE praas::praas)
  if(arg_EXPORT_ALL)
    set(visibility default)
  else()
    set(visibility hidden)
  endif()
  set_target_properties(${name} PROPERTIES C_VISIBILITY_PRESET ${visibility} CXX_VISIBILITY_PRESET ${visibility}
                                           VISIBILITY_INLINES_HIDDEN ON)
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if("CXX" IN_LIST languages)
    target_compile_features(${name} PRIVATE cxx_std_17)
  endif()
endfunction()
