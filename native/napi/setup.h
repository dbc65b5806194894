#pragma once

// The only include of <napi.h>: every file of this folder sees the same configuration of node-addon-api, because two
// that differ break the one-definition rule of its inline functions.

// Node-API 8 is what every supported Node has; an addon built against it loads in all later versions unchanged.
#define NAPI_VERSION 8
#define NODE_ADDON_API_DISABLE_DEPRECATED
// An exception that finds the environment terminating (a worker being stopped) is dropped, not fatal.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
// Finalizers that may run inside garbage collection cannot touch JavaScript; with this the compiler says so.
#define NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS

#include <napi.h>

// C++ exceptions become JavaScript errors without a `code`. That is the safety net; the rule is a Status, converted in
// errors.h. The build must have chosen this variant, or an exception would end the process.
#ifndef NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#error "build with the node_addon_api_except_all target of node-addon-api"
#endif
