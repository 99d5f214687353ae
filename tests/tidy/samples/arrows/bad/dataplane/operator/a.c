#include "controlplane/store/store.h"
#include "dataplane/canonical/lane.h"
