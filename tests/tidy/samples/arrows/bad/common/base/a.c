#include "common/net/loop.h"
