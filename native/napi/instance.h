#pragma once

#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "napi/errors.h"
#include "napi/loop.h"
#include "napi/scope.h"
#include "napi/setup.h"

namespace praas::napi {

/// The native objects of one class behind JavaScript objects. Tells whether `this` of a method has one, in a few
/// nanoseconds where looking at a type tag takes a hundred.
class KnownObjects {
 public:
  void Add(const void* object) { known_.insert(object); }
  void Remove(const void* object) noexcept {
    known_.erase(object);
    last_ = nullptr;
  }
  [[nodiscard]] bool Has(const void* object) noexcept {
    if (object == last_) return object != nullptr;
    if (!known_.contains(object)) return false;
    last_ = object;
    return true;
  }

 private:
  std::unordered_set<const void*> known_;
  const void* last_ = nullptr;  // methods are mostly called on one object
};

/// What the addon keeps per environment (main thread, each worker thread); there are no mutable globals.
struct Instance {
  Instance(napi_env env, std::shared_ptr<LoopRegistry> registry)
      : loop(std::move(registry)), calls(env, "praas.call"), invocations(env, "praas.invocation") {}

  std::shared_ptr<LoopRegistry> loop;
  AsyncContext calls;        // outcomes of calls of this thread's connections
  AsyncContext invocations;  // functions run by this thread's worker
  Napi::FunctionReference connection_class;
  Napi::FunctionReference worker_class;
  /// Shared with those objects, which may be finalized after the instance.
  std::shared_ptr<KnownObjects> connections = std::make_shared<KnownObjects>();
  std::shared_ptr<KnownObjects> workers = std::make_shared<KnownObjects>();
  /// Workers that wait for their host to attach them.
  std::vector<std::shared_ptr<void>> attaching;
  /// Set only while native code constructs a wrapped object: nobody else can.
  void* constructing = nullptr;

  [[nodiscard]] static Instance& Of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }
};

/// Makes an object of a wrapped class whose constructor takes `what` from Instance::constructing.
template <typename T>
[[nodiscard]] Napi::Object Construct(Napi::Env env, const Napi::FunctionReference& constructor, T&& what) {
  Instance& instance = Instance::Of(env);
  struct Reset {
    Instance& instance;
    ~Reset() { instance.constructing = nullptr; }
  } reset{instance};
  instance.constructing = &what;
  return constructor.New({});
}

/// The native object behind `object`, which has to be among `known`.
template <typename T>
[[nodiscard]] T* KnownObject(Napi::Object object, KnownObjects& known, const char* class_name) {
  void* found = nullptr;
  if (napi_unwrap(object.Env(), object, &found) != napi_ok || !known.Has(found)) {
    throw WrongType(object.Env(), "this", class_name);
  }
  return static_cast<T*>(found);
}

/// For constructors: what Construct was given, or a TypeError when JavaScript called `new` itself.
template <typename T>
[[nodiscard]] T& Constructing(Napi::Env env, const char* class_name) {
  void* const what = Instance::Of(env).constructing;
  if (what == nullptr) throw Napi::TypeError::New(env, std::string(class_name) + " has no public constructor");
  return *static_cast<T*>(what);
}

}  // namespace praas::napi
