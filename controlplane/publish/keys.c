/* keys: see keys.h. */
#include "controlplane/publish/keys.h"

#include <string.h>

#include "common/base/slice.h"

static const struct ring_key *find(const struct root *root, enum key_role role,
                                   const uint8_t *public)
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        const struct ring_key *key = &root->ring.keys[i];
        if (key->role == role && memcmp(key->public, public, KEY_PUBLIC_SIZE) == 0) {
            return key;
        }
    }
    return NULL;
}

void cp_keys_judge(const struct root *root, const struct cp_signer_hello *hello, int64_t now_ms,
                   struct cp_keys *out)
{
    *out = (struct cp_keys){.head_code = E_KEY_UNKNOWN,
                            .head_left_ms = INT64_MAX,
                            .root_left_ms = root->not_after_ms - now_ms};
    const struct ring_key *head = find(root, KEY_ROLE_HEAD, hello->head_public);
    const struct ring_key *manifest = find(root, KEY_ROLE_MANIFEST, hello->manifest_public);
    if (head != NULL) {
        bool timed = head->not_after_ms != 0;
        out->head_left_ms = timed ? head->not_after_ms - now_ms : INT64_MAX;
        out->head_code = out->head_left_ms < 0 ? E_KEY_EXPIRED : E_OK;
        (void)memcpy(out->head, head->name, sizeof(out->head));
    }
    out->manifest_known = manifest != NULL;
    if (manifest != NULL) {
        (void)memcpy(out->manifest, manifest->name, sizeof(out->manifest));
    }
}

bool cp_key_is_break_glass(const char *name)
{
    return slice_starts(slice_str(name), SLICE_LIT("break-glass"));
}
