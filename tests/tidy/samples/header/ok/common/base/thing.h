/*
 * thing: what it is.
 *
 * Shape      a shape.
 * Threads    any.
 * Errors     none.
 */
#pragma once
