/* one. */
/* TODO: the rest. */
/* FIXME */
