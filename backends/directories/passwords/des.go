package passwords

import "strings"

// Traditional crypt(3): two digits of salt, and eleven of a block of zeros, encrypted 25 times by a DES whose expansion the salt
// changes, under seven bits of each of the first eight characters. The standard library's DES cannot be changed so; here is
// another, after FIPS 46-3, written to be short.

const digits64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// desCrypt compares a password with the 13 digits that are stored.
func desCrypt(stored, password string) (bool, error) {
	if !encoded(stored, 13) {
		return false, errDamaged
	}
	salt := strings.IndexByte(digits64, stored[0]) | strings.IndexByte(digits64, stored[1])<<6
	var key uint64
	for i := range 8 {
		key <<= 8
		if i < len(password) {
			key |= uint64(password[i]) << 1 & 0xff
		}
	}
	block := des(key, salt, 25)
	made := []byte(stored[:2])
	for range 11 {
		made = append(made, digits64[block>>58])
		block <<= 6
	}
	return equal(stored, string(made)), nil
}

// des encrypts a block of zeros several times. The final permutation and the initial one, which would come between, undo each
// other, and the initial one of zeros is zeros.
func des(key uint64, salt, times int) uint64 {
	keys := subkeys(key)
	var left, right uint32
	for range times {
		for _, k := range keys {
			left, right = right, left^scramble(right, k, salt)
		}
		left, right = right, left
	}
	return permute(uint64(left)<<32|uint64(right), 64, finalPermutation)
}

// scramble is the function f of FIPS 46-3. Of its 48 expanded bits the salt exchanges the first with the 25th, the second with
// the 26th, and so on.
func scramble(right uint32, key uint64, salt int) uint32 {
	expanded := permute(uint64(right), 32, expansion)
	for i := range 12 {
		if salt>>i&1 != 0 {
			high, low := 47-i, 23-i
			differs := (expanded>>high ^ expanded>>low) & 1
			expanded ^= differs<<high | differs<<low
		}
	}
	expanded ^= key
	var chosen uint64
	for i, box := range boxes {
		six := expanded >> (42 - 6*i) & 63
		row, column := six>>4&2|six&1, six>>1&15
		chosen = chosen<<4 | box[row]>>(60-4*column)&15
	}
	return uint32(permute(chosen, 32, permutation))
}

// subkeys are the keys of the 16 rounds.
func subkeys(key uint64) (keys [16]uint64) {
	const half = 1<<28 - 1
	chosen := permute(key, 64, choice1)
	left, right := chosen>>28, chosen&half
	for i, shift := range shifts {
		left = (left<<shift | left>>(28-shift)) & half
		right = (right<<shift | right>>(28-shift)) & half
		keys[i] = permute(left<<28|right, 56, choice2)
	}
	return keys
}

// permute takes bits of a word of that width, whose first bit is the highest and counted as 1.
func permute(word uint64, width int, order []uint8) (result uint64) {
	for _, bit := range order {
		result = result<<1 | word>>(width-int(bit))&1
	}
	return result
}

// The tables of FIPS 46-3: E, P, PC-1, PC-2, the inverse of IP, the rotations, and the rows of S1 to S8.
var (
	expansion = []uint8{32, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12, 13, 12, 13, 14, 15, 16, 17,
		16, 17, 18, 19, 20, 21, 20, 21, 22, 23, 24, 25, 24, 25, 26, 27, 28, 29, 28, 29, 30, 31, 32, 1}
	permutation = []uint8{16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10,
		2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25}
	choice1 = []uint8{57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
		63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4}
	choice2 = []uint8{14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
		41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32}
	finalPermutation = []uint8{40, 8, 48, 16, 56, 24, 64, 32, 39, 7, 47, 15, 55, 23, 63, 31,
		38, 6, 46, 14, 54, 22, 62, 30, 37, 5, 45, 13, 53, 21, 61, 29,
		36, 4, 44, 12, 52, 20, 60, 28, 35, 3, 43, 11, 51, 19, 59, 27,
		34, 2, 42, 10, 50, 18, 58, 26, 33, 1, 41, 9, 49, 17, 57, 25}
	shifts = [16]int{1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1}
	boxes  = [8][4]uint64{
		{0xe4d12fb83a6c5907, 0x0f74e2d1a6cb9538, 0x41e8d62bfc973a50, 0xfc8249175b3ea06d},
		{0xf18e6b34972dc05a, 0x3d47f28ec01a69b5, 0x0e7ba4d158c6932f, 0xd8a13f42b67c05e9},
		{0xa09e63f51dc7b428, 0xd709346a285ecbf1, 0xd6498f30b12c5ae7, 0x1ad069874fe3b52c},
		{0x7de3069a1285bc4f, 0xd8b56f03472c1ae9, 0xa690cb7df13e5284, 0x3f06a1d8945bc72e},
		{0x2c417ab6853fd0e9, 0xeb2c47d150fa3986, 0x421bad78f9c5630e, 0xb8c71e2d6f09a453},
		{0xc1af92680d34e75b, 0xaf427c9561de0b38, 0x9ef528c3704a1db6, 0x432c95fabe17608d},
		{0x4b2ef08d3c975a61, 0xd0b7491ae35c2f86, 0x14bdc37eaf680592, 0x6bd814a7950fe23c},
		{0xd2846fb1a93e50c7, 0x1fd8a374c56b0e92, 0x7b419ce206adf358, 0x21e74a8dfc90356b},
	}
)
