// sd_notify(3) by hand: one datagram to the socket named by NOTIFY_SOCKET, so that libsystemd and
// what it pulls in stay out. Called by: main, the event loop. Memory: none.
#pragma once

#include <string_view>

namespace thimble {

// Sends `state`, "READY=1" or "STOPPING=1". Does nothing where no service manager asked for it; a
// datagram that cannot be sent is lost, as with sd_notify.
void SdNotify(std::string_view state);

}  // namespace thimble
