/* docs/errors.md says more. */
