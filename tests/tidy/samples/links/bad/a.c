/* docs/lost.md says more. */
