/* SPDX-License-Identifier: Apache-2.0
 * crc32c.h - the Castagnoli checksum (polynomial 0x1EDC6F41, reflected), as in iSCSI and ext4. */
#ifndef LIM__CRC32C_H
#define LIM__CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` is the checksum of, followed by these bytes; 0 is that of nothing. */
uint32_t lim__crc32c(uint32_t crc, const void *bytes, size_t len);
/* The same without the processor's instruction: what machines without it get. */
uint32_t lim__crc32c_table(uint32_t crc, const void *bytes, size_t len);

#endif
