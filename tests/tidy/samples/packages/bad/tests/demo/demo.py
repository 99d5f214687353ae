import os

import h2.config
import unheard

os.execvp("protoc-gen-other", [h2.config, unheard])
