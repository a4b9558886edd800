// SPDX-License-Identifier: Apache-2.0
#include "every_header.hpp"
#include "two_units.hpp"

Addresses two_units_second() { return addresses(); }
