{
  # The build that ships. CMakeLists.txt builds the same sources for native tests and tools.
  'variables': {
    # The path of a call runs through many small functions of many files.
    'lto': ['-flto=auto'],
  },
  'target_defaults': {
    # Node's common.gypi asks for C++17 without exceptions or RTTI, and for -O3, which makes for larger executables.
    'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-fno-exceptions', '-fno-rtti'],
    'cflags_cc': ['-std=c++20', '-Wall', '-Wextra', '-fvisibility=hidden', '-fvisibility-inlines-hidden'],
    'cflags': ['-ffunction-sections', '-fdata-sections'],
    'include_dirs': ['native'],
    'configurations': {
      'Release': {
        'cflags!': ['-O3'],
        'cflags': ['-O2', '<@(lto)'],
        'ldflags': ['-O2', '<@(lto)'],
        'defines': ['NDEBUG'],
      },
    },
  },
  'targets': [
    {
      'target_name': 'praas_core',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.cjs core)'],
      'link_settings': {
        'libraries': ['-lrt', '-ldl', '-pthread'],
      },
    },
    {
      'target_name': 'praas',
      'type': 'loadable_module',
      'sources': ['<!@(node scripts/sources.cjs addon)'],
      'defines': ['PRAAS_VERSION="<!(node -p "require(\'./package.json\').version")"'],
      'dependencies': [
        'praas_core',
        # Every C++ exception becomes a JS error instead of std::terminate. A net only: see native/napi/setup.h.
        "<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except_all",
      ],
      'ldflags': ['-Wl,--gc-sections'],
    },
    {
      'target_name': 'praas-host',
      'type': 'executable',
      'sources': ['<!@(node scripts/sources.cjs host)'],
      'defines': ['PRAAS_VERSION="<!(node -p "require(\'./package.json\').version")"'],
      'dependencies': ['praas_core'],
      # -rdynamic is for executables that load addons; here it would export every symbol and defeat --gc-sections.
      'ldflags!': ['-rdynamic'],
      'ldflags': ['-static-libstdc++', '-static-libgcc', '-Wl,--gc-sections'],
    },
    {
      'target_name': 'praas-worker',
      'type': 'executable',
      'sources': ['<!@(node scripts/sources.cjs function)', '<!@(node scripts/sources.cjs worker)'],
      'include_dirs': ['include'],
      'defines': ['PRAAS_VERSION="<!(node -p "require(\'./package.json\').version")"'],
      'dependencies': ['praas_core'],
      'ldflags!': ['-rdynamic'],
      # The C++ library inside halves the time to start. Exceptions of functions that have another copy of it are caught
      # on their side of the C interface, or end the worker.
      'ldflags': ['-static-libstdc++', '-static-libgcc', '-Wl,--gc-sections', '-Wl,--dynamic-list=<(module_root_dir)/native/function/exports.ld'],
    },
    # What benchmarks measure, and measure against.
    {
      'target_name': 'praas-floor',
      'type': 'executable',
      'sources': ['<!@(node scripts/sources.cjs floor)'],
      'cflags_c': ['-std=gnu11', '-Wall', '-Wextra'],
      'ldflags!': ['-rdynamic'],
      'libraries': ['-lrt', '-ldl', '-pthread'],
    },
    {
      'target_name': 'praas-bench-client',
      'type': 'executable',
      'sources': [
        'bench/native/batches.cc',
        'bench/native/client.cc',
        'bench/native/client_options.cc',
        'bench/native/lease_start.cc',
        'bench/native/served.cc',
      ],
      'dependencies': ['praas_core'],
      'ldflags!': ['-rdynamic'],
      'ldflags': ['-Wl,--gc-sections'],
    },
    {
      'target_name': 'praas-bench-cold',
      'type': 'executable',
      'sources': ['bench/native/cold_start.cc'],
      'dependencies': ['praas_core'],
      'ldflags!': ['-rdynamic'],
      'ldflags': ['-Wl,--gc-sections'],
    },
    {
      # A function library as its users build them.
      'target_name': 'praas-bench-functions',
      'type': 'loadable_module',
      # Where node-gyp has said "node" already.
      'target_conditions': [['_type=="loadable_module"', { 'product_extension': 'so' }]],
      'sources': ['bench/native/functions.c', 'bench/native/measure_null.c'],
      'include_dirs': ['include'],
      'cflags_c': ['-std=c11', '-Wall', '-Wextra'],
    },
  ],
}
