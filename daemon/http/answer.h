// An answer over HTTP, before it is bytes. Made by the routes, written by the connection. Memory:
// the body, while it is sent.
#pragma once

#include <string>
#include <string_view>

namespace thimble {

struct HttpAnswer {
  unsigned status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body = {};
  // A body that lives as long as the program: sent from where it lies, behind `body`.
  std::string_view fixed = {};
  std::string_view headers = {};  // further header lines, each with its "\r\n"
  // The body is the beginning of a stream of server-sent events: HttpServer sends on.
  bool events = false;
};

// Status line and header fields, "\r\n\r\n" included. A stream has no length and ends with its
// connection.
std::string HttpHeader(const HttpAnswer& answer, bool keep_alive);

}  // namespace thimble
