/* The command line of praas-floor. */
#pragma once

#include "floor.h"

/* Ends the program with status 2 and a reason when the arguments are wrong, with 0 after --help. */
const struct floor* read_arguments(int count, char** arguments, struct options* options);
/* Ends the program with status 2, a reason and where to read more. */
_Noreturn void usage_error(const char* format, ...) __attribute__((format(printf, 1, 2)));
/* A whole number between least and most; false for anything else. */
bool read_number(const char* text, uint64_t least, uint64_t most, uint64_t* number);
