/*
 * wrapped: what it is.
 *
 * Shape      a shape that is so long that it goes on in a line of its own. Threads    any.
 */
#pragma once
