/* store: from a URL to its implementation. See store.h. */
#include <string.h>

#include "controlplane/store/sqlite.h"
#include "controlplane/store/store.h"

struct err cp_store_open(const char *url, struct cp_store **out, struct buf *message)
{
    static const char sqlite[] = "sqlite:";
    if (strncmp(url, sqlite, sizeof(sqlite) - 1) == 0 && url[sizeof(sqlite) - 1] != '\0') {
        return cp_sqlite_open(url + sizeof(sqlite) - 1, out, message);
    }
    TRY(buf_addf(message, "store: found \"%.200s\"; expected sqlite:FILE", url));
    return FAIL(E_USAGE);
}

void cp_store_close(struct cp_store *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}
