#include "verbs/library.h"

#if PRAAS_VERBS_HEADERS

#include <dlfcn.h>

#include <string>

namespace praas::verbs {
namespace {

constexpr const char* kFile = "libibverbs.so.1";

struct Loaded {
  Library functions{};
  Status status;
};

/// dlsym finds the default version of a symbol, which is the one of the header.
template <typename Function>
bool Find(void* handle, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(handle, symbol));
  return function != nullptr;
}

Loaded LoadNow() {
  Loaded loaded;
  // Never closed: providers start threads and keep state.
  void* const handle = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    loaded.status = Status(Code::kUnsupported, std::string("RDMA needs ") + kFile + ": " +
                                                   (why != nullptr ? why : "it cannot be loaded") +
                                                   "; install rdma-core (Debian: ibverbs-providers)");
    return loaded;
  }
  Library& library = loaded.functions;
  const char* missing = nullptr;
  const auto need = [&](const char* symbol, auto& function) {
    if (!Find(handle, symbol, function) && missing == nullptr) missing = symbol;
  };
  need("ibv_get_device_list", library.get_device_list);
  need("ibv_free_device_list", library.free_device_list);
  need("ibv_get_device_name", library.get_device_name);
  need("ibv_open_device", library.open_device);
  need("ibv_close_device", library.close_device);
  need("ibv_query_device", library.query_device);
  need("ibv_query_port", library.query_port);
  need("ibv_query_gid", library.query_gid);
  need("ibv_get_async_event", library.get_async_event);
  need("ibv_ack_async_event", library.ack_async_event);
  need("ibv_alloc_pd", library.alloc_pd);
  need("ibv_dealloc_pd", library.dealloc_pd);
  need("ibv_reg_mr", library.reg_mr);
  need("ibv_dereg_mr", library.dereg_mr);
  need("ibv_create_comp_channel", library.create_comp_channel);
  need("ibv_destroy_comp_channel", library.destroy_comp_channel);
  need("ibv_create_cq", library.create_cq);
  need("ibv_destroy_cq", library.destroy_cq);
  need("ibv_get_cq_event", library.get_cq_event);
  need("ibv_ack_cq_events", library.ack_cq_events);
  need("ibv_create_srq", library.create_srq);
  need("ibv_destroy_srq", library.destroy_srq);
  need("ibv_create_qp", library.create_qp);
  need("ibv_modify_qp", library.modify_qp);
  need("ibv_destroy_qp", library.destroy_qp);
  need("ibv_wc_status_str", library.wc_status_str);
  static_cast<void>(Find(handle, "_ibv_query_gid_table", library.query_gid_table));
  // Kernels before 5.12 otherwise take memory of the device's queues away from this process when it starts another.
  int (*fork_init)() = nullptr;
  if (missing == nullptr && Find(handle, "ibv_fork_init", fork_init)) static_cast<void>(fork_init());
  if (missing != nullptr) {
    loaded.status =
        Status(Code::kUnsupported, std::string(kFile) + " has no " + missing + "; install a newer rdma-core");
  }
  return loaded;
}

}  // namespace

Result<const Library*> Library::Load() {
  static const Loaded loaded = LoadNow();
  if (!loaded.status.ok()) return loaded.status;
  return &loaded.functions;
}

}  // namespace praas::verbs

#endif
