/* SPDX-License-Identifier: Apache-2.0
 * base64.h - bytes as text and back (RFC 4648, with filling), for what must travel in JSON. */
#ifndef LIM__BASE64_H
#define LIM__BASE64_H

#include "base/buf.h"

void lim__base64_write(lim__buf *out, lim_bytes bytes);
/* False: it is not base64, or there is no memory; `out` may have some of it. */
bool lim__base64_read(lim__buf *out, lim_bytes text);

#endif
