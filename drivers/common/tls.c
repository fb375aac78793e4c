/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS for the stream. See tls.h.
 *
 * The server's certificate must lead to a trusted one and carry the name, or the address, that we connect to.
 */
#include "drivers/common/tls.h"

#include <arpa/inet.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

struct stream_tls {
	SSL_CTX *context;
};

/* The oldest error in OpenSSL's queue has the cause. */
static const char *ssl_reason(void)
{
	unsigned long code = ERR_get_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	ERR_clear_error();
	if (ERR_SYSTEM_ERROR(code))
		return strerror(ERR_GET_REASON(code));
	return reason ? reason : "unknown error";
}

static int refuse_because(const char *what, const char *file, const char *why, char **ret_error)
{
	ERR_clear_error();
	if (asprintf(ret_error, "%s '%s': %s", what, file, why) < 0)
		*ret_error = NULL;
	return -EINVAL;
}

/* What is looked for is not in the file at all. */
static bool has_none(void)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	return !ERR_SYSTEM_ERROR(code) &&
	       (reason == ERR_R_UNSUPPORTED ||
		       (ERR_GET_LIB(code) == ERR_LIB_PEM && reason == PEM_R_NO_START_LINE));
}

static int refuse_file(const char *what, const char *file, char **ret_error)
{
	char none[64];
	snprintf(none, sizeof(none), "has no %s", what);
	return refuse_because(what, file, has_none() ? none : ssl_reason(), ret_error);
}

/* A key with a passphrase must not make the daemon ask at a terminal. */
static int no_passphrase(char *data, int size, int writing, void *user)
{
	bool *wanted = user;
	*wanted = true;
	return 0;
}

static int load_key(SSL_CTX *context, const char *file, char **ret_error)
{
	bool wanted = false;
	SSL_CTX_set_default_passwd_cb(context, no_passphrase);
	SSL_CTX_set_default_passwd_cb_userdata(context, &wanted);
	int r = SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM);
	SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
	SSL_CTX_set_default_passwd_cb(context, NULL);
	if (r == 1)
		return 0;
	if (wanted)
		return refuse_because("private key", file,
			"has a passphrase, and nobody to be asked for it: use one without",
			ret_error);
	return refuse_file("private key", file, ret_error);
}

static int load_files(SSL_CTX *context, const char *ca_file, const char *cert_file,
	const char *key_file, char **ret_error)
{
	if (ca_file && SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1)
		return refuse_file("trusted certificates", ca_file, ret_error);
	if (!ca_file && SSL_CTX_set_default_verify_paths(context) != 1)
		return refuse_file("trusted certificates", "of the system", ret_error);
	if (cert_file && SSL_CTX_use_certificate_chain_file(context, cert_file) != 1)
		return refuse_file("certificate", cert_file, ret_error);
	/* As in Python the key may stand in the file of the certificate. */
	if (!key_file)
		key_file = cert_file;
	int r = key_file ? load_key(context, key_file, ret_error) : 0;
	if (r)
		return r;
	if (cert_file && SSL_CTX_check_private_key(context) != 1)
		return refuse_file("private key", key_file, ret_error);
	return 0;
}

int stream_tls_new(const char *ca_file, const char *cert_file, const char *key_file,
	struct stream_tls **ret, char **ret_error)
{
	*ret_error = NULL;
	struct stream_tls *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	ERR_clear_error();
	self->context = SSL_CTX_new(TLS_client_method());
	if (!self->context) {
		free(self);
		return -ENOMEM;
	}
	SSL_CTX_set_min_proto_version(self->context, TLS1_2_VERSION);
	SSL_CTX_set_options(self->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(
		self->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(self->context, SSL_VERIFY_PEER, NULL);
	int r = load_files(self->context, ca_file, cert_file, key_file, ret_error);
	if (r < 0) {
		stream_tls_free(self);
		return r;
	}
	*ret = self;
	return 0;
}

void stream_tls_free(struct stream_tls *self)
{
	if (!self)
		return;
	SSL_CTX_free(self->context);
	free(self);
}

/* Whom the certificate must be for. Names are also told to the server (SNI), addresses may not be. */
static bool expect_name(SSL *ssl, const char *name)
{
	char address[sizeof(struct in6_addr)];
	if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

int tls_init(struct tls *self, struct stream_tls *shared, const char *server_name)
{
	ERR_clear_error();
	*self = (struct tls){.ssl = SSL_new(shared->context)};
	if (!self->ssl)
		return -ENOMEM;
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	if (!in || !out || !expect_name(self->ssl, server_name)) {
		BIO_free(in);
		BIO_free(out);
		tls_done(self);
		return -ENOMEM;
	}
	/* Empty means "not now", not the end. */
	BIO_set_mem_eof_return(in, -1);
	BIO_set_mem_eof_return(out, -1);
	SSL_set_bio(self->ssl, in, out);
	self->in = in;
	self->out = out;
	SSL_set_connect_state(self->ssl);
	return 0;
}

void tls_done(struct tls *self)
{
	SSL_free(self->ssl);
	*self = (struct tls){0};
}

/* What the last call's failure means. */
static int tls_failure(struct tls *self, int result, char ret_text[TLS_TEXT_MAX])
{
	switch (SSL_get_error(self->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return -EPIPE;
	default:
		break;
	}
	long verify = SSL_get_verify_result(self->ssl);
	if (verify != X509_V_OK) {
		ERR_clear_error();
		snprintf(ret_text, TLS_TEXT_MAX, "the server's certificate was refused: %s",
			X509_verify_cert_error_string(verify));
		return -EACCES;
	}
	unsigned long code = ERR_peek_error();
	bool plain = ERR_GET_LIB(code) == ERR_LIB_SSL &&
		     ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER;
	snprintf(ret_text, TLS_TEXT_MAX, "TLS failed: %s%s", ssl_reason(),
		plain ? ": is that a port for TLS?" : "");
	return -EPROTO;
}

int tls_handshake(struct tls *self, char ret_text[TLS_TEXT_MAX])
{
	ERR_clear_error();
	int r = SSL_do_handshake(self->ssl);
	if (r == 1)
		return 1;
	r = tls_failure(self, r, ret_text);
	if (r == -EPIPE) {
		snprintf(ret_text, TLS_TEXT_MAX,
			"closed during the TLS handshake: is that a port for TLS?");
		r = -EPROTO;
	}
	return r;
}

int tls_read(struct tls *self, void *data, int len, char ret_text[TLS_TEXT_MAX])
{
	ERR_clear_error();
	int r = SSL_read(self->ssl, data, len);
	return r > 0 ? r : tls_failure(self, r, ret_text);
}

int tls_write(struct tls *self, const void *data, int len, char ret_text[TLS_TEXT_MAX])
{
	ERR_clear_error();
	int r = SSL_write(self->ssl, data, len);
	return r > 0 ? r : tls_failure(self, r, ret_text);
}
