#include "tests/mutation/trial.h"
const struct trial_kind file_kinds[] = {{.name = NULL}};
