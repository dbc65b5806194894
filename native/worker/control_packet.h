#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "worker/control.h"

/// The bytes of control messages. Both ends are builds of one package on one machine, so integers are in native byte
/// order; they are validated all the same, because a damaged peer must not damage the other.
namespace praas::worker {

/// Everything but the fds. kArgumentInvalid when a field is out of its bounds or the whole exceeds kMaxMessage.
[[nodiscard]] Result<std::vector<std::byte>> EncodeControl(const ControlMessage& message);

/// kProtocolInvalid for an unknown type, a field that runs past the end or is out of bounds, and bytes left over.
[[nodiscard]] Result<ControlMessage> DecodeControl(std::span<const std::byte> bytes);

/// How many fds a message of this type carries; −1 for an unknown type.
[[nodiscard]] int ControlFds(ControlType type) noexcept;

}  // namespace praas::worker
