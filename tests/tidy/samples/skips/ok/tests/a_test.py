"""What cannot run is skipped."""

import trilane

trilane.skip("no disk is full here")
