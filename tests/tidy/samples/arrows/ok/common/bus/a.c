#include "common/base/err.h"
#include "common/proto/wire.h"
