// Stands in for NVRTC beside the driver's stand-in, which does not look into what it is given to load: the
// source itself is the compiled program. SONAME: libnvrtc.so.
#include <cstdlib>
#include <cstring>

enum { SUCCESS = 0, INVALID_INPUT = 3, COMPILATION = 6 };

extern "C" {

struct Program {
	char *source;
};

int nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char *const *,
                       const char *const *) {
	if (!source) return INVALID_INPUT;
	*program = new Program{strdup(source)};
	return SUCCESS;
}

int nvrtcDestroyProgram(Program **program) {
	free((*program)->source);
	delete *program;
	*program = nullptr;
	return SUCCESS;
}

int nvrtcCompileProgram(Program *program, int, const char *const *) {
	return *program->source ? SUCCESS : COMPILATION;
}

int nvrtcGetPTXSize(Program *program, size_t *size) {
	*size = strlen(program->source) + 1;
	return SUCCESS;
}

int nvrtcGetPTX(Program *program, char *text) {
	strcpy(text, program->source);
	return SUCCESS;
}

int nvrtcGetProgramLogSize(Program *, size_t *size) {
	*size = 1;
	return SUCCESS;
}

int nvrtcGetProgramLog(Program *, char *log) {
	*log = 0;
	return SUCCESS;
}

} // extern "C"
