/* The numbers of the network @NAME@ and its arithmetic in C99: what the core @NAME@ gives, bit by bit.
 *
 *     @NAME@_value x[@UPPER@_INPUTS], y[@UPPER@_OUTPUTS];
 *     @NAME@_compute(x, y);
 *
 * All are integers. x[n] is a number times 2^@UPPER@_INPUT_FRAC, rounded with halves up, and must fit
 * @UPPER@_INPUT_WIDTH bits, @INCODE@; y[n] stands for y[n] * 2^-@UPPER@_OUTPUT_FRAC.
 * x and y must not overlap. @STACK@
 */
#ifndef BFTHW_@UPPER@_H
#define BFTHW_@UPPER@_H

#include <stdint.h>

#define @UPPER@_INPUTS @INPUTS@
#define @UPPER@_INPUT_WIDTH @INWIDTH@
#define @UPPER@_INPUT_SIGNED @INSIGNED@
#define @UPPER@_INPUT_FRAC (@INFRAC@)
#define @UPPER@_OUTPUTS @OUTPUTS@
#define @UPPER@_OUTPUT_WIDTH @OUTWIDTH@
#define @UPPER@_OUTPUT_SIGNED @OUTSIGNED@
#define @UPPER@_OUTPUT_FRAC (@OUTFRAC@)

typedef @VALUE@ @NAME@_value; /* an element of a vector */
typedef @SUM@ @NAME@_sum; /* holds every sum of products, aligned */

@ARRAYS@

static inline @NAME@_sum @NAME@_left(@NAME@_sum sum, int shift)
{
    return sum * ((@NAME@_sum)1 << shift); /* << of a negative number is undefined */
}

/* Drops `shift` fraction bits, halves up, or adds some; clips. */
static inline @NAME@_value @NAME@_requantise(@NAME@_sum sum, int shift, @NAME@_sum least, @NAME@_sum most)
{
    if (shift > 0) {
        sum += (@NAME@_sum)1 << (shift - 1);
        sum = sum < 0 ? ~(~sum >> shift) : sum >> shift; /* >> of a negative number is up to the compiler */
    } else {
        sum = @NAME@_left(sum, -shift);
    }
    return (@NAME@_value)(sum > most ? most : sum < least ? least : sum);
}

static inline void @NAME@_compute(const @NAME@_value *x, @NAME@_value *y)
{
@BODY@
}

#endif
