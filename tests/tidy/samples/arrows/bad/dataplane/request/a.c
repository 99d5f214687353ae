#include "dataplane/proxy/exchange.h"
