"""What cannot run is skipped."""

import sys

print("no disk is full here")
sys.exit(77)
