#include "daemon/http/answer.h"

namespace thimble {
namespace {

// RFC 9110 and 6585, of the statuses that are answered here.
std::string_view Reason(unsigned status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

}  // namespace

std::string HttpHeader(const HttpAnswer& answer, bool keep_alive) {
  std::string text = "HTTP/1.1 " + std::to_string(answer.status) + " ";
  text.append(Reason(answer.status));
  text += "\r\nContent-Type: " + answer.type;
  if (!answer.events) {
    text += "\r\nContent-Length: " + std::to_string(answer.body.size() + answer.fixed.size());
  }
  // Nothing of it is another origin's business, or worth keeping.
  text +=
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff"
      "\r\nCross-Origin-Resource-Policy: same-origin";
  if (answer.status == 405) text += "\r\nAllow: GET, HEAD";
  text += keep_alive ? "\r\nConnection: keep-alive\r\n" : "\r\nConnection: close\r\n";
  text.append(answer.headers).append("\r\n");
  return text;
}

}  // namespace thimble
