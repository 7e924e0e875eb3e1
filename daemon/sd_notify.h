// sd_notify(3) by hand: one datagram to the socket named by NOTIFY_SOCKET, so that libsystemd and
// what it pulls in stay out. Called by: main, the event loop. Memory: none.
#pragma once

#include <chrono>
#include <string_view>

namespace thimble {

// Sends `state`: "READY=1", "STOPPING=1", "WATCHDOG=1". Does nothing where no service manager asked
// for it; a datagram that cannot be sent is lost, as with sd_notify.
void SdNotify(std::string_view state);

// How often "WATCHDOG=1" is to be sent: half the time after which the service manager takes the
// process for stuck (WATCHDOG_USEC); 0 where none watches this process (WATCHDOG_PID).
std::chrono::microseconds WatchdogInterval();

}  // namespace thimble
