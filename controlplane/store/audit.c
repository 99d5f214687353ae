/* audit: who did what, and what came of it. */
#include "controlplane/store/store_in.h"

enum { MARK_SIZE = 16, TRIES_MAX = 8 };

struct line {
    const char *environment;
    const struct cp_audit *entry;
    uint8_t mark[MARK_SIZE]; /* made once: a line that is written again stands there once. */
};

static struct err is_written(struct sql *db, const struct line *line, bool *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT 1 FROM audit WHERE mark = $1");
    sql_bind_bytes(&q, 1, slice_of(line->mark, sizeof(line->mark)));
    return sql_row(&q, out);
}

static struct err write_line(struct sql *db, const struct line *line)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO audit (seq, environment, at_ms, actor, action, object, outcome, mark)"
              " SELECT coalesce(max(seq), 0) + 1, $1, trilane_now(), $2, $3, $4, $5, $6"
              " FROM audit WHERE true ON CONFLICT DO NOTHING");
    sql_bind_text(&q, 1, line->environment);
    sql_bind_text(&q, 2, line->entry->actor);
    sql_bind_text(&q, 3, line->entry->action);
    sql_bind_text(&q, 4, line->entry->object);
    sql_bind_text(&q, 5, line->entry->outcome);
    sql_bind_bytes(&q, 6, slice_of(line->mark, sizeof(line->mark)));
    return sql_run(&q);
}

/* Replicas that write at the same moment reckon the same number: one of them takes the next. */
static struct err add(struct sql *db, void *ctx)
{
    const struct line *line = ctx;
    for (int i = 0; i < TRIES_MAX; i++) {
        bool written = false;
        TRY(write_line(db, line));
        TRY(is_written(db, line, &written));
        if (written) {
            return OK;
        }
    }
    return FAIL(E_UNAVAILABLE);
}

struct err cp_op_audit_add(struct cp_store *store, const char *environment,
                           const struct cp_audit *entry)
{
    struct line line = {.environment = environment, .entry = entry};
    ids_random(line.mark, sizeof(line.mark));
    return cp_write(store, &(struct cp_write){0}, add, &line);
}

static void read_line(const struct sql_query *q, struct cp_audit *out)
{
    out->seq = sql_number(q, 0);
    out->at_ms = (int64_t)sql_number(q, 1);
    sql_text(q, 2, out->actor, sizeof(out->actor));
    sql_text(q, 3, out->action, sizeof(out->action));
    sql_text(q, 4, out->object, sizeof(out->object));
    sql_text(q, 5, out->outcome, sizeof(out->outcome));
}

struct err cp_op_audit_list(struct cp_store *store, const char *environment, struct cp_audit *out,
                            size_t max, size_t *out_count)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT seq, at_ms, actor, action, object, outcome FROM audit"
              " WHERE environment = $1 ORDER BY seq DESC LIMIT $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, max);
    size_t count = 0;
    for (bool found = true; found && count < max;) {
        TRY(sql_row(&q, &found));
        if (found) {
            read_line(&q, &out[count++]);
        }
    }
    *out_count = count;
    return OK;
}
