#pragma once

#include <string>

#include "verbs/context.h"

namespace praas::test {

/// Why there is no RDMA device to test with; empty: there is one.
inline std::string NoRdmaDevice() {
#if PRAAS_VERBS_HEADERS
  const auto opened = verbs::Context::Open({});
  return opened.ok() ? std::string() : opened.status().message();
#else
  return "this build has no RDMA";
#endif
}

}  // namespace praas::test
