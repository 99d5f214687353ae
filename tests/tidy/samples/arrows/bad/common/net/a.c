#include "common/base/err.h"
#include "dataplane/apply/model.h"
#include "common/snapshot/head.h"
