#include "controlplane/store/store.h"
#include <stdio.h>
