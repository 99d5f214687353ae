#include "dataplane/apply/model.h"
