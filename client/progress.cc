#include "client/progress.h"

#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>

#include "client/terminal.h"

namespace thimble {
namespace {

constexpr std::chrono::milliseconds kFrame{100};
// What is over sooner is not shown at all: no flicker at the first token of a fast daemon.
constexpr std::chrono::milliseconds kFirst{200};
constexpr std::array<const char*, 10> kBraille = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
constexpr std::array<const char*, 4> kAscii = {"|", "/", "-", "\\"};

}  // namespace

std::string ShortTime(double seconds) {
  char text[48];
  const double whole = std::round(seconds);
  if (seconds < 9.95) {
    (void)std::snprintf(static_cast<char*>(text), sizeof text, "%.1f s", seconds);
  } else if (whole < 60) {
    (void)std::snprintf(static_cast<char*>(text), sizeof text, "%.0f s", whole);
  } else if (whole < 3600) {
    (void)std::snprintf(static_cast<char*>(text), sizeof text, "%.0f min %.0f s",
                        std::floor(whole / 60), std::fmod(whole, 60));
  } else {
    (void)std::snprintf(static_cast<char*>(text), sizeof text, "%.0f h %.0f min",
                        std::floor(whole / 3600), std::floor(std::fmod(whole, 3600) / 60));
  }
  return static_cast<char*>(text);
}

std::string ProgressText(const v1::GenerateEvent& event) {
  if (event.has_queued()) {
    std::string text = "queued at place " + std::to_string(event.queued().position());
    if (event.queued().estimated_wait_seconds() > 0) {
      text += ", about " + ShortTime(event.queued().estimated_wait_seconds());
    }
    return text;
  }
  if (event.has_started()) {
    const uint32_t fresh = event.started().prompt_tokens() - event.started().cached_prompt_tokens();
    return "reading the prompt: " + std::to_string(fresh) + (fresh == 1 ? " token" : " tokens");
  }
  if (event.has_prompt_progress()) {
    return "reading the prompt: " + std::to_string(event.prompt_progress().done()) + " of " +
           std::to_string(event.prompt_progress().total()) + " tokens";
  }
  return {};
}

Progress::Progress(bool enabled, bool utf8) : enabled_(enabled), utf8_(utf8) {}

void Progress::Show(const std::string& text) {
  if (!enabled_) return;
  {
    const std::scoped_lock lock(mutex_);
    text_ = text;
    if (drawing_) return;
    drawing_ = true;
    since_ = std::chrono::steady_clock::now();
  }
  thread_ = std::thread([this] { Draw(); });
}

void Progress::Hide() {
  {
    const std::scoped_lock lock(mutex_);
    if (!drawing_) return;
    drawing_ = false;
  }
  changed_.notify_all();
  thread_.join();
}

void Progress::Draw() {
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, kFirst, [this] { return !drawing_; })) return;
  for (size_t frame = 0; drawing_; ++frame) {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - since_).count();
    const std::string line =
        (utf8_ ? kBraille[frame % kBraille.size()] : kAscii[frame % kAscii.size()]) +
        (" " + text_) + " (" + ShortTime(seconds) + ")";
    // One column stays free, so that no terminal wraps the line.
    const std::string out = "\r\x1b[K" + Clip(line, SizeOfTerminal(STDERR_FILENO).columns - 1);
    (void)std::fwrite(out.data(), 1, out.size(), stderr);
    changed_.wait_for(lock, kFrame, [this] { return !drawing_; });
  }
  (void)std::fputs("\r\x1b[K", stderr);
}

}  // namespace thimble
