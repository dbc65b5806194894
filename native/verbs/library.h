#pragma once

#include "base/result.h"
#include "verbs/headers.h"

namespace praas::verbs {

#if PRAAS_VERBS_HEADERS

/// What libibverbs exports, as this program uses it. What its header defines inline (posting, polling, arming) goes to
/// the provider of the device without it.
struct Library {
  // The header has macros of some of these names, which would be replaced here, too.
  ibv_device** (*get_device_list)(int* count);
  void (*free_device_list)(ibv_device** list);
  const char* (*get_device_name)(ibv_device* device);
  ibv_context* (*open_device)(ibv_device* device);
  int (*close_device)(ibv_context* context);
  int (*query_device)(ibv_context* context, ibv_device_attr* attributes);
  int (*query_port)(ibv_context* context, uint8_t port, struct _compat_ibv_port_attr* attributes);
  int (*query_gid)(ibv_context* context, uint8_t port, int index, ibv_gid* gid);
  int (*get_async_event)(ibv_context* context, ibv_async_event* event);
  void (*ack_async_event)(ibv_async_event* event);
  ibv_pd* (*alloc_pd)(ibv_context* context);
  int (*dealloc_pd)(ibv_pd* domain);
  ibv_mr* (*reg_mr)(ibv_pd* domain, void* address, size_t bytes, int access);
  int (*dereg_mr)(ibv_mr* region);
  ibv_comp_channel* (*create_comp_channel)(ibv_context* context);
  int (*destroy_comp_channel)(ibv_comp_channel* channel);
  ibv_cq* (*create_cq)(ibv_context* context, int entries, void* user, ibv_comp_channel* channel, int vector);
  int (*destroy_cq)(ibv_cq* queue);
  int (*get_cq_event)(ibv_comp_channel* channel, ibv_cq** queue, void** user);
  void (*ack_cq_events)(ibv_cq* queue, unsigned count);
  ibv_srq* (*create_srq)(ibv_pd* domain, ibv_srq_init_attr* attributes);
  int (*destroy_srq)(ibv_srq* queue);
  ibv_qp* (*create_qp)(ibv_pd* domain, ibv_qp_init_attr* attributes);
  int (*modify_qp)(ibv_qp* pair, ibv_qp_attr* attributes, int mask);
  int (*destroy_qp)(ibv_qp* pair);
  const char* (*wc_status_str)(ibv_wc_status status);
  /// Of rdma-core 32 (2020) and later; null before.
  ssize_t (*query_gid_table)(ibv_context* context, ibv_gid_entry* entries, size_t most, uint32_t flags,
                             size_t entry_bytes);

  /// Loaded once and kept. kUnsupported: there is none, or one without a symbol that is needed; says what to install.
  [[nodiscard]] static Result<const Library*> Load();
};

#endif

}  // namespace praas::verbs
