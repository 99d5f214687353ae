/* publisher_bucket: what a publisher writes to a bucket; see publisher.h. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/publisher.h"

enum { KV_TIMEOUT_MS = 5000 };

void publisher_put(const struct kv *kv, const char *key, struct slice value)
{
    struct err e = kv_put(kv, slice_str(key), value, KV_TIMEOUT_MS, NULL);
    if (!err_ok(e)) {
        (void)fprintf(stderr, "publisher: %s for %s\n", err_name(e.code), key);
        abort();
    }
}

void publisher_put_version(const struct kv *kv, const struct version *v)
{
    char key[SNAP_KEY_SIZE];
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            snap_key_chunk(v->streams[i].chunks[k].digest, key);
            publisher_put(kv, key, v->streams[i].chunks[k].stored);
        }
    }
    snap_key_manifest(v->number, v->digest, key);
    publisher_put(kv, key, buf_slice(&v->manifest));
}
