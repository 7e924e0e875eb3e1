// The line on standard error that shows, on a terminal, what a request waits for: its place in the
// queue, the part of the prompt that is read, a lost connection. It is drawn in place by a thread
// of its own, ten times a second, and leaves nothing behind.
// Called by: `thimble generate` and `chat`. Memory: one line and a thread's stack.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "thimble/v1/thimble.pb.h"

namespace thimble {

// What is shown of an event: "queued at place 2, about 12 s", "reading the prompt: 64 of 200
// tokens". Empty for a token and for the end.
std::string ProgressText(const v1::GenerateEvent& event);

// "0.4 s", "12 s", "3 min 20 s", "2 h 5 min".
std::string ShortTime(double seconds);

class Progress {
 public:
  // Draws nothing where `enabled` is false. `utf8`: dots of Braille instead of |/-\.
  Progress(bool enabled, bool utf8);
  ~Progress() { Hide(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Show(const std::string& text);
  // Removes the line. When it returns, standard error and output may be written to.
  void Hide();

 private:
  void Draw();

  const bool enabled_;
  const bool utf8_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::string text_;
  bool drawing_ = false;
  std::chrono::steady_clock::time_point since_;
  std::thread thread_;
};

}  // namespace thimble
