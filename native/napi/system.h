#pragma once

#include "napi/setup.h"

namespace praas::napi {

/// Adds the functions of NativeBinding that need neither a connection nor a worker: capabilities, limits, and what
/// `praas inspect`, `praas clean` and agents ask about segments, queues and processes.
void DefineSystem(Napi::Env env, Napi::Object exports);

}  // namespace praas::napi
