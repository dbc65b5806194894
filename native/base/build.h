#pragma once

namespace praas {

/// Whether this was built with assertions and without optimisation: nothing to measure with.
#ifdef NDEBUG
inline constexpr bool kDebugBuild = false;
#else
inline constexpr bool kDebugBuild = true;
#endif

/// What programs say after their version. `praas bench` looks for it.
inline constexpr const char* kBuildNote = kDebugBuild ? ", debug build" : "";

}  // namespace praas
