/*
 * twice: what it is.
 */
#ifndef TWICE
#define TWICE
#endif
