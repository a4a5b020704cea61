"""What is asked of a TPM: the public areas of our objects, and the ciphers of sessions."""

from tpm2_pytss import (
    TPM2_ALG,
    TPM2_ECC,
    TPM2_NT,
    TPM2_RH,
    TPM2_ST,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPMA_NV,
    TPMA_OBJECT,
    TPMS_ECC_PARMS,
    TPMS_KEYEDHASH_PARMS,
    TPMS_NV_PUBLIC,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_HASHCHECK,
    TPMU_ASYM_SCHEME,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

AES_BITS = 128
COUNTER_BYTES = 8

_BITS, _MODE = TPMU_SYM_KEY_BITS(aes=AES_BITS), TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
SESSION_CIPHER = TPMT_SYM_DEF(algorithm=TPM2_ALG.AES, keyBits=_BITS, mode=_MODE)
SCHEME_OF_KEY = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
# Our digests are of messages that the TPM did not see: no ticket vouches for them.
NO_TICKET = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)

_FIXED = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT
_CAPTIVE = _FIXED | TPMA_OBJECT.SENSITIVEDATAORIGIN | TPMA_OBJECT.USERWITHAUTH
# Opened by random secrets that nobody guesses: whoever provokes a lock-out does not stop them.
_SIGNING = _CAPTIVE | TPMA_OBJECT.NODA | TPMA_OBJECT.SIGN_ENCRYPT


def storage_key() -> TPM2B_PUBLIC:
    """The storage root key (TCG TPM v2.0 Provisioning Guidance, table 2, for P-256)."""
    attributes = _CAPTIVE | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
    cipher = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.AES, keyBits=_BITS, mode=_MODE)
    return _p256(attributes, cipher, TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL))


def signing_key() -> TPM2B_PUBLIC:
    """The journal's key."""
    return _p256(_SIGNING, _NO_CIPHER, _ECDSA)


def attestation_key() -> TPM2B_PUBLIC:
    """A key that signs what its TPM says and nothing else."""
    return _p256(_SIGNING | TPMA_OBJECT.RESTRICTED, _NO_CIPHER, _ECDSA)


def sealed_data(policy: bytes, *, guessable: bool) -> TPM2B_PUBLIC:
    """A secret under a policy; tries are counted when a PIN, which can be guessed, is part."""
    attributes = _FIXED if guessable else _FIXED | TPMA_OBJECT.NODA
    scheme = TPMT_KEYEDHASH_SCHEME(scheme=TPM2_ALG.NULL)
    return TPM2B_PUBLIC(
        TPMT_PUBLIC(
            type=TPM2_ALG.KEYEDHASH,
            nameAlg=TPM2_ALG.SHA256,
            objectAttributes=attributes,
            authPolicy=policy,
            parameters=TPMU_PUBLIC_PARMS(keyedHashDetail=TPMS_KEYEDHASH_PARMS(scheme=scheme)),
        )
    )


def counter(index: int) -> TPM2B_NV_PUBLIC:
    """A counter that its own secret reads and moves.

    It is written through: an "orderly" counter wears less, and jumps ahead after a power cut, which
    would look like a store that was set back.
    """
    kind = TPM2_NT.COUNTER << TPMA_NV.TPM2_NT_SHIFT
    return TPM2B_NV_PUBLIC(
        TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=TPM2_ALG.SHA256,
            attributes=TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA | kind,
            authPolicy=b"",
            dataSize=COUNTER_BYTES,
        )
    )


_NO_CIPHER = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
_ECDSA = TPMT_ECC_SCHEME(
    scheme=TPM2_ALG.ECDSA,
    details=TPMU_ASYM_SCHEME(ecdsa=TPMS_SCHEME_HASH(hashAlg=TPM2_ALG.SHA256)),
)


def _p256(
    attributes: TPMA_OBJECT, cipher: TPMT_SYM_DEF_OBJECT, scheme: TPMT_ECC_SCHEME
) -> TPM2B_PUBLIC:
    details = TPMS_ECC_PARMS(
        symmetric=cipher,
        scheme=scheme,
        curveID=TPM2_ECC.NIST_P256,
        kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
    )
    return TPM2B_PUBLIC(
        TPMT_PUBLIC(
            type=TPM2_ALG.ECC,
            nameAlg=TPM2_ALG.SHA256,
            objectAttributes=attributes,
            parameters=TPMU_PUBLIC_PARMS(eccDetail=details),
        )
    )
