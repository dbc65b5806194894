#include <utility>

#include "protocol/names.h"
#include "state/store_impl.h"

/// The store's side of reader/writer locks; the queues are in lock_table.cc.
namespace praas::state {
namespace {

constexpr uint32_t kBatch = 32;  // locks released per section

}  // namespace

Result<StateStore::LockTicket> StateStore::Lock(std::string_view name, LockMode mode, LockOwner owner,
                                                uint64_t deadline_ns) {
  if (Status status = protocol::ValidateName(name, "lock name"); !status.ok()) return status;
  if (mode != LockMode::kRead && mode != LockMode::kWrite) {
    return Status(Code::kArgumentInvalid, "lock mode " + std::to_string(static_cast<uint32_t>(mode)) + " is not known");
  }
  for (;;) {
    {
      Result<Impl::Section> section = impl_->Enter(deadline_ns);
      if (!section.ok()) return section.status();
      if (impl_->locks.HasRoom()) return impl_->locks.Add(name, mode, owner);
    }
    if (Status status = impl_->locks.Grow(); !status.ok()) return status;
  }
}

bool StateStore::LockGranted(uint32_t holder) const noexcept { return impl_->locks.Granted(holder); }

Status StateStore::Unlock(uint32_t holder, uint64_t deadline_ns) {
  Result<Impl::Section> section = impl_->Enter(deadline_ns);
  if (!section.ok()) return section.status();
  if (impl_->locks.Remove(holder)) return Status::Ok();
  return Status(Code::kStateLockLost,
                "the lock is not held any more: it was released, or its owner was taken for dead");
}

Status StateStore::UnlockAll(LockOwner owner, uint64_t deadline_ns) {
  if (impl_->locks.empty()) return Status::Ok();
  for (bool done = false; !done;) {
    Result<Impl::Section> section = impl_->Enter(deadline_ns);
    if (!section.ok()) return section.status();
    done = impl_->locks.RemoveOwned(owner, kBatch);
  }
  return Status::Ok();
}

void StateStore::OnGrant(std::function<void(uint16_t participant)> wake) { impl_->wake = std::move(wake); }

}  // namespace praas::state
