#include "common/net/http1.h"
#include "dataplane/request/request.h"
