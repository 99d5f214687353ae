/* schedule: see schedule.h. */
#include "tests/model/schedule.h"

#include <fcntl.h>

#include "common/base/limits.h"
#include "common/base/log.h"

#include "tests/model/chaos.h"
#include "tests/model/ledger.h"
#include "tests/model/operator.h"
#include "tests/model/world.h"

/* Faults happen until then; then everything is mended. */
#define FAULTS_NS (40 * SIM_SECOND)
/* So long may a publication take that somebody is at when everything is mended. */
#define SETTLE_NS (60 * SIM_SECOND)
/* So long may it take until a publication is answered, and until every node serves it. A node asks
 * for roots once a minute. */
#define CONVERGE_NS (90 * SIM_SECOND)

enum { WHY_MAX = 160 };

static bool has_converged(void)
{
    char why[WHY_MAX];
    return world_converged(/* crashes_count= */ true, why, sizeof(why));
}

static bool has_converged_but_for_crashes(void)
{
    char why[WHY_MAX];
    return world_converged(/* crashes_count= */ false, why, sizeof(why));
}

/* Without anybody's doing, unless somebody is asked to. */
static void converge_alone(void)
{
    char why[WHY_MAX];
    sim_run(sim_now_ns() + CONVERGE_NS, has_converged_but_for_crashes, world_check);
    if (!world_converged(/* crashes_count= */ false, why, sizeof(why)) &&
        !world_store_is_behind()) {
        sim_fail("by itself %s", why);
    }
}

static void publish_last(void)
{
    char why[WHY_MAX];
    operator_publish_last();
    sim_run(sim_now_ns() + CONVERGE_NS, operator_is_done, world_check);
    if (!operator_is_done()) {
        sim_fail("nothing can be published: %s", operator_last_answer());
    }
    sim_run(sim_now_ns() + CONVERGE_NS, has_converged, world_check);
    if (!world_converged(/* crashes_count= */ true, why, sizeof(why))) {
        sim_fail("behind the last publication %s", why);
    }
}

/* Hours of the bucket's life in a minute. */
static void shorten_limits(void)
{
    limits.chunk_fresh_ms = 5000;
    limits.collect_age_ms = 10000;
    limits.collect_interval_ms = 4000;
    limits.collect_reported_ms = 60000;
    limits.collect_versions = 3;
}

void schedule_run(const struct schedule *schedule, struct schedule_figures *out)
{
    shorten_limits();
    sim_begin(schedule->seed, schedule->traces);
    bugs_make(schedule->bug);
    log_level_set(LOG_INFO);
    if (!schedule->traces) {
        log_fd_set(open("/dev/null", O_WRONLY | O_CLOEXEC));
    }
    world_begin(schedule->directory);
    operator_begin();
    out->faults = chaos_begin(FAULTS_NS, schedule->left_out, bugs_faults(schedule->bug));
    if (schedule->says_faults) {
        chaos_print(schedule->left_out);
    }
    sim_run(FAULTS_NS, NULL, world_check);
    sim_note("all is mended");
    chaos_end();
    world_heal();
    chaos_revoke();
    operator_rest();
    sim_run(FAULTS_NS + SETTLE_NS, operator_rests, world_check);
    converge_alone();
    publish_last();
    out->publications = ledger_count();
    out->digest = sim_digest();
    out->virtual_ms = sim_now_ns() / SIM_MS;
}
